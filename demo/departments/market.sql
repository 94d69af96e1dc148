CREATE TABLE qydj (tyshxydm TEXT PRIMARY KEY, qymc TEXT NOT NULL, zczb TEXT, jyfw TEXT, zs TEXT, fddbr TEXT, fddbr_zjh TEXT, zt TEXT NOT NULL, djh TEXT);
CREATE UNIQUE INDEX qydj_1 ON qydj (qymc);
CREATE INDEX qydj_2 ON qydj (fddbr_zjh);
CREATE TABLE dxqy (qymc TEXT, zrr_zjh TEXT, dx_rq TEXT);
CREATE INDEX dxqy_1 ON dxqy (zrr_zjh);
CREATE VIEW v_rzxz AS SELECT zrr_zjh FROM dxqy WHERE dx_rq > date('now', '-3 years');
CREATE TABLE spjyxk (xkzbh TEXT PRIMARY KEY, tyshxydm TEXT, bdcdyh TEXT, zws TEXT, zt TEXT);
CREATE UNIQUE INDEX spjyxk_1 ON spjyxk (bdcdyh) WHERE zt = '有效';
