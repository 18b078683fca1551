"""Input: files of devices and statuses, read line by line."""
