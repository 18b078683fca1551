"""Secrets and credentials in files, which are read again when PrintOS refuses them."""
