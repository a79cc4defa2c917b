# Logs in at a PostgreSQL server as the environment says, with no password, and
# executes each line of standard input: prints the first column of the first row,
# or why there is none. Usage: postgres.py [CONNECTS]; with a number it only logs in
# so many times, and counts the failures.
import sys

import psycopg2

if len(sys.argv) > 1:
    failed = 0
    for _ in range(int(sys.argv[1])):
        try:
            psycopg2.connect("").close()
        except psycopg2.Error as refused:
            failed += 1
            print(refused, file=sys.stderr)
    print(f"{sys.argv[1]} connects, {failed} failed")
    sys.exit()

connection = psycopg2.connect("")
connection.autocommit = True
for line in sys.stdin:
    try:
        with connection.cursor() as cursor:
            cursor.execute(line)
            print(cursor.fetchone()[0], flush=True)
    except psycopg2.Error as refused:
        print("error", refused.pgcode, str(refused).strip(), flush=True)
