"""What people look at: tables with verdicts, their files, the list of artifacts, the page of findings."""
