"""The driver for S3 and everything that speaks its protocol, on aiobotocore."""
