"""The driver of Alibaba Cloud's Object Storage Service."""
