"""How a `MixTrainer` trains a model: it mixes in one of three ways, see README.md."""
