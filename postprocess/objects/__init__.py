"""Where published objects live: a local folder, S3 or Google Cloud Storage, behind one door."""
