"""The driver for Azure Blob Storage, on the asyncio client of azure-storage-blob."""
