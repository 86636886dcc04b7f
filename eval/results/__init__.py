"""What was found: records, their files, the results of single items."""
