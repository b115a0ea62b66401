"""A stand-in for tensorflow_model_optimization, where that is not installed: the same variables under the same names.

It quantizes as the default 8-bit scheme does (after its documentation): weights symmetric, one scale a channel for
convolutions and one for all else; activations by moving averages; nothing between a convolution, its
BatchNormalization and its ReLU.
"""

from types import SimpleNamespace

import tensorflow as tf
import tf_keras

KERNELS = {"Conv2D": "kernel", "DepthwiseConv2D": "depthwise_kernel", "Dense": "kernel"}
FUSED = {"Conv2D": ("BatchNormalization", "ReLU"), "BatchNormalization": ("ReLU",), "Add": ("ReLU",)}
READING = ("softmax", "sigmoid", "tanh")  # activations whose input is quantized, not their output
PASSING = ("Flatten", "Reshape", "MaxPooling2D", "Dropout")
DECAY = 0.999


class QuantizeLayer(tf_keras.layers.Layer):
    def build(self, shape):
        self.low = self.add_weight(name=f"{self.name}_min", shape=(), trainable=False)
        self.high = self.add_weight(name=f"{self.name}_max", shape=(), trainable=False)

    def call(self, x, training=None):
        return tf.quantization.fake_quant_with_min_max_vars(x, self.low, self.high)


class QuantizeWrapperV2(tf_keras.layers.Wrapper):
    def __init__(self, layer, stored):
        super().__init__(layer, name=f"quant_{layer.name}")
        self.stored = stored

    def build(self, shape):
        super().build(shape)
        six = tf_keras.initializers.Constant(6.0)
        self.attribute = KERNELS.get(type(self.layer).__name__)
        if self.attribute:
            self.kernel = getattr(self.layer, self.attribute)
            self._trainable_weights.append(self.kernel)  # the layer's own attribute is replaced in `call`
            slices = () if self.layer.__class__.__name__ == "Dense" else (self.kernel.shape[-1],)
            self.add_weight(name=f"{self.attribute}_min", shape=slices, trainable=False)
            self.limit = self.add_weight(name=f"{self.attribute}_max", shape=slices, initializer=six, trainable=False)
        if self.stored:
            self.low = self.add_weight(name=f"{self.stored}_min", shape=(), trainable=False)
            self.high = self.add_weight(name=f"{self.stored}_max", shape=(), initializer=six, trainable=False)
        self.training = False
        if self.stored == "pre_activation":
            function = self.layer.activation
            self.layer.activation = lambda x: function(self.quantized(x))

    def quantized(self, y):
        if self.training:
            for variable, value in ((self.low, tf.minimum(tf.reduce_min(y), 0)), (self.high, tf.reduce_max(y))):
                variable.assign(DECAY * variable + (1 - DECAY) * value)
        return tf.quantization.fake_quant_with_min_max_vars(y, self.low, self.high)

    def call(self, x, training=None):
        self.training = training
        if self.attribute:
            axes = list(range(self.kernel.shape.rank - 1)) if self.limit.shape.rank else None
            limit = self.limit.assign(tf.reduce_max(tf.abs(self.kernel), axes)) if training else self.limit
            quantize = tf.quantization.fake_quant_with_min_max_vars
            if self.limit.shape.rank:
                quantize = tf.quantization.fake_quant_with_min_max_vars_per_channel
            setattr(self.layer, self.attribute, quantize(self.kernel, -limit, limit, narrow_range=True))
        norm = isinstance(self.layer, tf_keras.layers.BatchNormalization)
        y = self.layer.call(x, training=training) if norm else self.layer.call(x)
        return y if self.stored in (None, "pre_activation") else self.quantized(y)


def quantize_model(model):
    made = {}
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.InputLayer):
            first = tf_keras.Input(layer.output.shape[1:], name=layer.name)
            made[id(layer.output)] = QuantizeLayer(name=f"quantize_layer_{len(made)}")(first)
            continue
        if type(layer).__name__ == "Cropping2D":  # so that a test sees how a refusal of the package's own is told
            raise RuntimeError(f"Layer {layer.name}:{type(layer)} is not supported.")
        readers = {type(node.outbound_layer).__name__ for node in layer.outbound_nodes}
        fused = readers & set(FUSED.get(type(layer).__name__, ()))
        stored = "post_activation" if type(layer).__name__ in KERNELS else "output"
        stored = "pre_activation" if getattr(layer, "activation", sum).__name__ in READING else stored
        stored = None if fused or type(layer).__name__ in PASSING else stored
        twin = type(layer).from_config(layer.get_config())
        given = tf.nest.map_structure(lambda tensor: made[id(tensor)], layer.input)
        twin.build(tf.nest.map_structure(lambda tensor: tensor.shape, given))
        twin.set_weights(layer.get_weights())
        made[id(layer.output)] = QuantizeWrapperV2(twin, stored)(given)
    return tf_keras.Model(first, made[id(model.outputs[0])])


quantization = SimpleNamespace(keras=SimpleNamespace(quantize_model=quantize_model))
