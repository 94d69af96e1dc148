CREATE TABLE taxpayer (reg_no TEXT PRIMARY KEY, credit_code TEXT UNIQUE, name TEXT, fin_name TEXT, fin_id TEXT);
