CREATE TABLE birth_record (cert_no TEXT PRIMARY KEY, mother_id TEXT, born_at TEXT, sex TEXT);
CREATE INDEX birth_1 ON birth_record (mother_id);
CREATE TABLE vaccination_book (book_no TEXT PRIMARY KEY, cert_no TEXT UNIQUE, child_name TEXT);
