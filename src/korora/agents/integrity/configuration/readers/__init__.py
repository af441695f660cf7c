"""One reader for each format. A reader gives no file up for one bad setting."""
