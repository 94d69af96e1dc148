CREATE TABLE yz_ba (babm TEXT PRIMARY KEY, xydm TEXT UNIQUE, dwmc TEXT, fr_zjh TEXT);
CREATE TABLE hj_hb (hh TEXT, gmsfhm TEXT, zt TEXT);
CREATE INDEX hj_1 ON hj_hb (gmsfhm);
CREATE TABLE hj_cs (djbh TEXT PRIMARY KEY, cszm TEXT UNIQUE, xm TEXT, xb TEXT, csrq TEXT, hh TEXT, mq_zjh TEXT);
