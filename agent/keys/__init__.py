"""Key providers: who holds the keys that data keys are wrapped under."""
