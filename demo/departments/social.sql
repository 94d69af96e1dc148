CREATE TABLE si_employer (si_no TEXT PRIMARY KEY, credit_code TEXT UNIQUE, employer_name TEXT, headcount INTEGER);
CREATE TABLE si_resident (si_no TEXT PRIMARY KEY, birth_cert TEXT UNIQUE, full_name TEXT, payer_id TEXT);
