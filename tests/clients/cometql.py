"""What scripts do with PyMySQL: cometql.py HOST PORT KEY. Prints one line for each step."""

import json
import sys

import pymysql

host, port, key = sys.argv[1], int(sys.argv[2]), sys.argv[3]

try:
    pymysql.connect(host=host, port=port, user="15", password="wrong", database="CometQL_v1")
except pymysql.MySQLError as error:
    print(error.args[0])

comet = pymysql.connect(
    host=host, port=port, user="15", password=key, database="CometQL_v1", charset="utf8mb4"
)
with comet, comet.cursor() as cursor:
    insert = "INSERT INTO pipes_messages (name, event, message) VALUES (%s, %s, %s)"
    cursor.execute(insert, ("python", "e", "it's \"ж🚀\"\n"))
    print(cursor.execute("INSERT INTO users_auth (id, hash) VALUES (%s, %s)", (8, "hash8")))
    comet.commit()
    cursor.execute("SELECT * FROM users_auth WHERE id IN (8, 9)")
    print(json.dumps(cursor.fetchall()))
    comet.ping()
    try:
        cursor.execute("SELECT * FROM pipes")
    except pymysql.MySQLError as error:
        print(error.args[0])
    cursor.execute("SELECT VERSION()")
    print(json.dumps(cursor.fetchone()))
