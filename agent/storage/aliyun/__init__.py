"""What services of Alibaba Cloud have in common: credentials, and calls signed with them."""
