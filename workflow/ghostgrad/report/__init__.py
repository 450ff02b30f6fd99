"""What people read: tables with verdicts and their files, the list of artifacts, the list of
claims, the findings, and snapshots of results for the documentation."""
