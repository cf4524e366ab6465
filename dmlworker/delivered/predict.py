"""Prints what the model says of each row of a CSV file, or of each image:   python predict.py FILE [FILE …]"""

import sys
from pathlib import Path

import keras
import rows

model = keras.saving.load_model(Path(__file__).with_name("model.keras"))
given = keras.tree.map_structure(keras.ops.convert_to_tensor, rows.raw(sys.argv[1:]))
rows.tell(model.predict(given, verbose=0))
