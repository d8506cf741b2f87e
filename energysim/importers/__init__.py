"""Networks from other tools' files, each format in a module that is imported when it is used."""
