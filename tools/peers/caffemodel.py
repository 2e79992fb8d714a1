"""Reads the weights of a .caffemodel (protobuf NetParameter with `layer` entries) without Caffe or protobuf."""
import numpy as np

LAYER, NAME, BLOBS, DATA, SHAPE, DIM = 100, 1, 7, 5, 7, 1   # field numbers of the messages on the way


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data):
    """(field number, value) of one message: numbers, or views of the bytes of what has a length."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        else:
            if kind == 2:
                size, at = varint(data, at)
            else:
                size = {1: 8, 5: 4}[kind]
            value = data[at:at + size]
            at += size
        yield number, value


def blob(data):
    shape, values = [], np.empty(0, "<f4")
    for number, value in fields(data):
        if number == DATA:
            values = np.frombuffer(value, "<f4")
        elif number == SHAPE:
            for inner, dims in fields(value):
                if inner != DIM:
                    continue
                at = 0
                while not isinstance(dims, int) and at < len(dims):
                    dim, at = varint(dims, at)
                    shape.append(dim)
                if isinstance(dims, int):
                    shape.append(dims)
    return values.reshape(shape)


def read(path):
    """{layer: [weight, bias]} of every layer that has blobs."""
    with open(path, "rb") as file:
        data = memoryview(file.read())
    layers = {}
    for number, message in fields(data):
        if number != LAYER:
            continue
        name, blobs = "", []
        for inner, value in fields(message):
            if inner == NAME:
                name = bytes(value).decode()
            elif inner == BLOBS:
                blobs.append(blob(value))
        if blobs:
            layers[name] = blobs
    return layers
