#!/usr/bin/env python3
"""Writes the three networks of npm's @vladmandic/face-api@1.7.15 as ONNX files, without touching a weight.

    npm pack @vladmandic/face-api@1.7.15 && tar xzf vladmandic-face-api-1.7.15.tgz
    pip install onnx==1.23.2
    python3 convert.py package/model OUT

The package ships weights of TensorFlow.js as bytes with a scale and a minimum for each tensor. They stay bytes here: each
is a uint8 initializer followed by Cast, Mul and Add, which any ONNX runtime folds when it loads the file. Axes are turned
from NHWC to NCHW. Input of each network: float32 [1, 3, S, S], RGB, 0 to 255; the means are subtracted inside.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SOURCES = {
    "tiny_face_detector_model": "b7503ce7df31039b1c43316a9b865cab6a70dd748cc602d3fa28b551503c3871",
    "face_landmark_68_model": "4611ef65c87d836d03d684b30eec4d195d8b219fa1dd58fc58945831c6b9299b",
    "face_recognition_model": "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
}


class Graph:
    """An ONNX graph in the making over the weights of one package file."""

    def __init__(self, folder, name):
        data = (folder / f"{name}.bin").read_bytes()
        assert hashlib.sha256(data).hexdigest() == SOURCES[name], f"{name}.bin is another file"
        self.weights, at = {}, 0
        for group in json.loads((folder / f"{name}-weights_manifest.json").read_text()):
            for w in group["weights"]:
                count = int(np.prod(w["shape"]))
                kind = np.uint8 if "quantization" in w else np.float32
                values = np.frombuffer(data, kind, count, at).reshape(w["shape"])
                at += values.nbytes
                self.weights[w["name"]] = (values, w.get("quantization"))
        assert at == len(data), f"{name}.bin has {len(data) - at} bytes too many"
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, values, kind=np.float32):
        self.count += 1
        name = f"k{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        out = f"t{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def weight(self, name, turn=lambda w: w):
        values, quantization = self.weights[name]
        values = np.ascontiguousarray(turn(values))
        if quantization is None:
            return self.constant(values)
        raw = self.constant(values, np.uint8)
        scaled = self.op("Mul", self.op("Cast", raw, to=TensorProto.FLOAT), self.constant(quantization["scale"]))
        return self.op("Add", scaled, self.constant(quantization["min"]))

    def bias(self, name):
        """One number a channel, to be added to NCHW."""
        return self.weight(name, lambda b: b.reshape(1, -1, 1, 1))

    def conv(self, x, name, stride=1, pads=(0, 0, 0, 0), groups=1):
        turn = (lambda w: w.transpose(2, 3, 0, 1)) if groups > 1 else (lambda w: w.transpose(3, 2, 0, 1))
        return self.op("Conv", x, self.weight(name, turn), strides=[stride, stride], dilations=[1, 1], pads=list(pads), group=groups)

    def separable(self, x, name, stride=1, pads=(1, 1, 1, 1)):
        channels = self.weights[f"{name}/depthwise_filter"][0].shape[2]
        x = self.conv(x, f"{name}/depthwise_filter", stride, pads, groups=channels)
        x = self.conv(x, f"{name}/pointwise_filter")
        return self.op("Add", x, self.bias(f"{name}/bias"))

    def normalised(self, means):
        means = self.constant(np.array(means).reshape(1, 3, 1, 1))
        return self.op("Div", self.op("Sub", "image", means), self.constant(255.0))

    def save(self, path, size, out, shape):
        self.nodes[-1].output[0] = "out"
        assert out == f"t{self.count}"
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path)


def detector(folder, out):
    """[1, 25, 13, 13]: of each of 13 x 13 cells and 5 anchors x, y, w, h and score (YOLO v2)."""
    g = Graph(folder, "tiny_face_detector_model")
    leaky = lambda x: g.op("LeakyRelu", x, alpha=0.1)
    pool = lambda x, stride, pads: g.op("MaxPool", x, kernel_shape=[2, 2], strides=[stride, stride], pads=pads)
    x = g.normalised([117.001, 114.697, 97.404])
    x = leaky(g.op("Add", g.conv(x, "conv0/filters"), g.bias("conv0/bias")))
    side = 414
    for layer in range(1, 6):
        x = pool(x, 2, [0, 0, side % 2, side % 2])
        side = (side + 1) // 2
        x = leaky(g.separable(x, f"conv{layer}"))
    x = pool(x, 1, [0, 0, 1, 1])
    x = g.op("Add", g.conv(x, "conv8/filters"), g.bias("conv8/bias"))
    g.save(out / "detector.onnx", 416, x, [1, 25, 13, 13])


def landmarks(folder, out):
    """[1, 136]: x and y of 68 points, as parts of the side."""
    g = Graph(folder, "face_landmark_68_model")
    relu = lambda x: g.op("Relu", x)
    x = g.normalised([122.782, 117.001, 104.298])
    for block in range(4):
        first = f"dense{block}/conv0"
        if block == 0:
            one = g.op("Add", g.conv(x, f"{first}/filters", 2, (0, 0, 1, 1)), g.bias(f"{first}/bias"))
        else:
            one = g.separable(x, first, 2, (0, 0, 1, 1))
        one = relu(one)
        two = g.separable(one, f"dense{block}/conv1")
        three = g.separable(relu(g.op("Add", one, two)), f"dense{block}/conv2")
        four_in = relu(g.op("Add", one, g.op("Add", two, three)))
        four = g.separable(four_in, f"dense{block}/conv3")
        x = relu(g.op("Add", one, g.op("Add", two, g.op("Add", three, four))))
    x = g.op("AveragePool", x, kernel_shape=[7, 7], strides=[2, 2])
    x = g.op("Reshape", x, g.constant([1, 256], np.int64))
    x = g.op("Add", g.op("MatMul", x, g.weight("fc/weights")), g.weight("fc/bias"))
    g.save(out / "landmarks.onnx", 112, x, [1, 136])


def embedder(folder, out):
    """[1, 128]: where a face lies; the Euclidean distance of two says how unlike they are (a ResNet after dlib's)."""
    g = Graph(folder, "face_recognition_model")
    relu = lambda x: g.op("Relu", x)

    def layer(x, name, stride=1, pads=(1, 1, 1, 1)):
        x = g.op("Add", g.conv(x, f"{name}/conv/filters", stride, pads), g.bias(f"{name}/conv/bias"))
        return g.op("Add", g.op("Mul", x, g.bias(f"{name}/scale/weights")), g.bias(f"{name}/scale/biases"))

    x = relu(layer(g.normalised([122.782, 117.001, 104.298]), "conv32_down", 2, (0, 0, 0, 0)))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    side, channels = 35, 32
    names = ["32_1", "32_2", "32_3", "64_down", "64_1", "64_2", "64_3", "128_down", "128_1", "128_2",
             "256_down", "256_1", "256_2", "256_down_out"]
    for name in names:
        name = f"conv{name}"
        if "down" not in name:
            x = relu(g.op("Add", layer(relu(layer(x, f"{name}/conv1")), f"{name}/conv2"), x))
            continue
        wider = g.weights[f"{name}/conv1/conv/filters"][0].shape[3]
        y = layer(relu(layer(x, f"{name}/conv1", 2, (0, 0, 0, 0))), f"{name}/conv2")
        pooled = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        short = side // 2 - ((side - 3) // 2 + 1)
        if short:
            y = g.op("Pad", y, g.constant([0, 0, 0, 0, 0, 0, short, short], np.int64))
        if wider != channels:
            pooled = g.op("Pad", pooled, g.constant([0, 0, 0, 0, 0, wider - channels, 0, 0], np.int64))
        x = relu(g.op("Add", pooled, y))
        side, channels = side // 2, wider
    x = g.op("MatMul", g.op("ReduceMean", x, axes=[2, 3], keepdims=0), g.weight("fc"))
    g.save(out / "embedder.onnx", 150, x, [1, 128])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    for write in (detector, landmarks, embedder):
        write(source, target)
