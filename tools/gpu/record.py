"""A record that is whole on the disk after every step, whatever becomes of the next one."""
import json
import os


class Record(dict):
    def __init__(self, path, head):
        super().__init__(head)
        self.path = path

    def set(self, **more):
        self.update(more)

    def save(self):
        folder = os.path.dirname(os.path.abspath(self.path))
        os.makedirs(folder, exist_ok=True)
        draft = self.path + ".draft"
        with open(draft, "w") as file:
            json.dump(self, file, indent=1)
            file.write("\n")
        os.replace(draft, self.path)
