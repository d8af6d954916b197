"""A stand-in for Alibaba Cloud: OSS, STS, KMS and the metadata of an instance, in one process.

No emulator of them exists. What is here checks every signature by itself, from the vendor's
description of it, and shares no code with the product or with the vendor's libraries. Which state
it starts in and how it fails is set by tests over `/~control/…`.
"""
