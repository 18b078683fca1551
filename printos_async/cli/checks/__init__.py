"""Steps of ``printos check``: each looks at one part of a set-up and changes nothing in PrintOS."""
