CREATE TABLE lhcj (zjh TEXT, ly TEXT, zt TEXT);
CREATE INDEX lhcj_1 ON lhcj (zjh);
