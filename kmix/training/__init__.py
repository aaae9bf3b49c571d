"""What a `MixTrainer` trains: a model, mixed in one of three ways, see README.md."""
