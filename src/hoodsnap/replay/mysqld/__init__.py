"""A stand-in for mysqld: MySQL's protocol and language over SQLite."""
