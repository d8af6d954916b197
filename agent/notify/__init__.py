"""Telling people: webhooks, sent by one elected agent."""
