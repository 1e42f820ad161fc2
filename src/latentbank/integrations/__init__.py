"""Thin bridges to other libraries, one file each."""
