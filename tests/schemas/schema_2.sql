-- Schema 2 of the state database, as the release that had it made and filled it.
BEGIN TRANSACTION;
CREATE TABLE decisions (
	project_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	keep BOOLEAN NOT NULL, 
	score FLOAT NOT NULL, 
	threshold FLOAT, 
	decided_at FLOAT NOT NULL, 
	marked BOOLEAN NOT NULL, 
	returned BOOLEAN NOT NULL, 
	PRIMARY KEY (project_id, task_id)
);
INSERT INTO "decisions" VALUES(3,18,0,0.125,0.5,1795300000.0,0,0);
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema','2');
INSERT INTO "meta" VALUES('stream_3','{"seen": 1}');
INSERT INTO "meta" VALUES('webhook_secret','kept-across-releases');
CREATE TABLE projects (
	id INTEGER NOT NULL, 
	managed BOOLEAN NOT NULL, 
	title TEXT NOT NULL, 
	wakes INTEGER NOT NULL, 
	wakes_handled INTEGER NOT NULL, 
	dirty_since FLOAT, 
	reconciled_at FLOAT, 
	train_requested_at FLOAT, 
	state TEXT NOT NULL, 
	stage TEXT NOT NULL, 
	stage_done INTEGER NOT NULL, 
	stage_total INTEGER NOT NULL, 
	error TEXT NOT NULL, 
	error_at FLOAT, 
	decided_model INTEGER NOT NULL, 
	train_error TEXT NOT NULL, 
	failed_digest TEXT NOT NULL, 
	retry_at FLOAT, 
	lease_owner TEXT, 
	lease_expires FLOAT, 
	extra_params TEXT NOT NULL, 
	label_config TEXT NOT NULL, 
	labels_digest TEXT NOT NULL, 
	cursor TEXT, 
	published_version TEXT NOT NULL, 
	ranking_version TEXT NOT NULL, 
	ranking_number INTEGER NOT NULL, 
	ranking_key TEXT NOT NULL, 
	undo TEXT NOT NULL, 
	pseudo_labels TEXT DEFAULT '' NOT NULL, 
	notice TEXT DEFAULT '' NOT NULL, 
	ranking_seconds FLOAT, 
	PRIMARY KEY (id)
);
INSERT INTO "projects" VALUES(3,1,'Zellkerne Größe µm',2,2,NULL,1795300018.0,NULL,'waiting','',0,0,'',NULL,2,'','',NULL,NULL,NULL,'{"strategy": "entropy"}','<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image"><Label value="Cell" background="#1f77b4"/></BrushLabels></View>','5f0c','2026-11-20T10:00:00.123456Z','nextmask-2.4','nextmask-2.4',4,'9c1f','{"sampling": "Sequential sampling"}','{}','Class Cell was added.',3.25);
INSERT INTO "projects" VALUES(8,0,'Roads',1,0,1795300006.0,NULL,NULL,'failed','',0,0,'Label Studio answers 401: the token is refused.',1795300000.0,0,'','',NULL,NULL,NULL,'','','',NULL,'','',0,'','','','',NULL);
CREATE TABLE published (
	project_id INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	task_id INTEGER NOT NULL, 
	score FLOAT NOT NULL, 
	mask BLOB, 
	published_at FLOAT NOT NULL, 
	PRIMARY KEY (project_id, version, task_id)
);
INSERT INTO "published" VALUES(3,'nextmask-1.2',11,0.25,X'89504E470D0A1A0A0000000D4948445200000008000000060800000000DB6E80270000000F49444154789C6360C0071871880300004E00023E94EA0B0000000049454E44AE426082',1795300010.5);
INSERT INTO "published" VALUES(3,'nextmask-2.4',15,0.25,X'89504E470D0A1A0A0000000D4948445200000008000000060800000000DB6E80270000000F49444154789C6360C0071871880300004E00023E94EA0B0000000049454E44AE426082',1795300013.5);
INSERT INTO "published" VALUES(3,'nextmask-2.4',16,0.5,NULL,1795300013.5);
CREATE TABLE published_versions (
	project_id INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	published_at FLOAT NOT NULL, 
	retired_at FLOAT, 
	PRIMARY KEY (project_id, version)
);
INSERT INTO "published_versions" VALUES(3,'nextmask-1.2',1795300010.5,1795300015.0);
INSERT INTO "published_versions" VALUES(3,'nextmask-2.4',1795300013.5,NULL);
CREATE TABLE queries (
	project_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	boxes TEXT NOT NULL, 
	cost FLOAT, 
	asked_at FLOAT NOT NULL, 
	PRIMARY KEY (project_id, task_id, version)
);
INSERT INTO "queries" VALUES(3,16,'nextmask-2.4','[[0, 0, 4, 3]]',6.5,1795300009.0);
CREATE TABLE ranking (
	project_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	priority FLOAT NOT NULL, 
	boxes TEXT DEFAULT '' NOT NULL, 
	cost FLOAT, 
	PRIMARY KEY (project_id, task_id)
);
INSERT INTO "ranking" VALUES(3,15,0.75,'',NULL);
INSERT INTO "ranking" VALUES(3,16,0.5,'[[0, 0, 4, 3]]',6.5);
CREATE TABLE tasks (
	project_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	image TEXT NOT NULL, 
	group_key TEXT NOT NULL, 
	updated_at TEXT NOT NULL, 
	status TEXT NOT NULL, 
	error TEXT NOT NULL, 
	annotation_id INTEGER, 
	label_digest TEXT NOT NULL, 
	mask_file TEXT NOT NULL, 
	held_out BOOLEAN NOT NULL, 
	lead_time FLOAT, 
	regions INTEGER NOT NULL, 
	vertices INTEGER NOT NULL, 
	shown_version TEXT NOT NULL, 
	agreement FLOAT, 
	boxes TEXT DEFAULT '' NOT NULL, 
	effort_file TEXT DEFAULT '' NOT NULL, 
	effort FLOAT, 
	PRIMARY KEY (project_id, task_id)
);
INSERT INTO "tasks" VALUES(3,11,'/data/upload/3/0011.png','/data/upload/3/0011.png','2026-11-20T09:11:00Z','labelled','',101,'aa11','/data/nextmask/projects/3/masks/aa11.png',0,41.5,2,33,'nextmask-1.2',0.8125,'[[0, 0, 4, 3]]','/data/nextmask/projects/3/masks/effort-11.npy',17.25);
INSERT INTO "tasks" VALUES(3,12,'/data/upload/3/0012.png','/data/upload/3/0012.png','2026-11-20T09:12:00Z','labelled','',102,'bb22','/data/nextmask/projects/3/masks/bb22.png',1,12.0,1,0,'',NULL,'','',NULL);
INSERT INTO "tasks" VALUES(3,13,'/data/upload/3/0013.png','/data/upload/3/0013.png','2026-11-20T09:13:00Z','skipped','',103,'','',0,NULL,0,0,'',NULL,'','',NULL);
INSERT INTO "tasks" VALUES(3,14,'/data/upload/3/0014.png','/data/upload/3/0014.png','2026-11-20T09:14:00Z','broken','The brush mask of task 14 cannot be read: it''s damaged.',104,'','',0,NULL,0,0,'',NULL,'','',NULL);
INSERT INTO "tasks" VALUES(3,15,'/data/upload/3/0015.png','/data/upload/3/0015.png','2026-11-20T09:15:00Z','unlabelled','',NULL,'','',0,NULL,0,0,'',NULL,'','',NULL);
INSERT INTO "tasks" VALUES(3,16,'/data/upload/3/0016.png','/data/upload/3/0016.png','2026-11-20T09:16:00Z','unlabelled','',NULL,'','',0,NULL,0,0,'',NULL,'','',NULL);
INSERT INTO "tasks" VALUES(3,17,'/data/upload/3/0017.png','/data/upload/3/0017.png','2026-11-20T09:17:00Z','unlabelled','The image answers 404.',NULL,'','',0,NULL,0,0,'',NULL,'','',NULL);
INSERT INTO "tasks" VALUES(3,18,'/data/upload/3/0018.png','/data/upload/3/0018.png','2026-11-20T09:18:00Z','passed','',NULL,'','',0,NULL,0,0,'',NULL,'','',NULL);
CREATE INDEX tasks_by_status ON tasks (project_id, status);
CREATE INDEX ranking_by_priority ON ranking (project_id, priority);
COMMIT;
