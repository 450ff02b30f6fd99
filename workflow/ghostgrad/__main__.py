from ghostgrad.cli.commands import main

main()
