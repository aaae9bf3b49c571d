"""What a trainer passes on to the bare model."""

import keras


class Delegate(keras.Model):
    """A model that wraps another, `model`, whose weights, outputs and export are its own."""

    def build(self, input_shape=None):
        # A sub-classed model that does not override `build` builds its layers when it is first called.
        if type(self.model).build is not keras.Model.build and not self.model.built:
            self.model.build(input_shape)
        self.built = True

    @property
    def output_names(self):
        """Names of the outputs of the model, possible keys of losses, metrics and labels."""
        return getattr(self.model, "output_names", None)

    def get_weights(self):
        """The weights of the bare model."""
        return self.model.get_weights()

    def set_weights(self, weights):
        """Set the weights of the bare model; step and alpha stay unchanged."""
        self.model.set_weights(weights)

    def export(self, *args, **kwargs):
        """Export the bare model, see `keras.Model.export`."""
        return self.model.export(*args, **kwargs)
