from ghostgrad.cli import main

main()
