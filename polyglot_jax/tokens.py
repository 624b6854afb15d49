"""The special tokens that mean something to us, by name: ids differ from tokenizer to tokenizer.

Whoever trains, encodes with, runs or publishes a tokenizer takes the names from here. Nothing is
imported, so that every package may.
"""

END_OF_TEXT = "<|endoftext|>"  # ends every document

# With these Polyglot-Ko masks personal data; they alone are special in the text of a document.
PLACEHOLDERS = {
    "<|acc|>": "bank account number",
    "<|tel|>": "phone number",
    "<|rrn|>": "resident registration number",
}
