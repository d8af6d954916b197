"""Moving bytes between cursors and objects within a budget."""
