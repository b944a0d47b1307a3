"""The rows of the service: tables, connections, migrations. SQLite by default, PostgreSQL by one setting."""
