"""Real servers of object stores and token services, as processes of the test run."""
