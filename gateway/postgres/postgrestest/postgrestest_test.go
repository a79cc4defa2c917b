package postgrestest_test

import (
	"testing"

	"innate/gateway/postgres/postgrestest"
)

func TestAServerOfTheTestsOwnTakesPasswordsOverTLSAndStartsAgain(t *testing.T) {
	pg := postgrestest.Start(t, postgrestest.WithSetting("log_connections", "on"), postgrestest.WithName("orders.example"),
		postgrestest.WithHBA("hostnossl all all all reject"))
	pg.Exec(`CREATE ROLE "a'b c" LOGIN PASSWORD 'x'`)
	dsn := pg.TCP("a'b c", "postgres", pg.VerifyFull()+" password=x")
	var who string
	if err := pg.Connect(dsn).QueryRow(t.Context(), "SELECT current_user").Scan(&who); err != nil || who != "a'b c" {
		t.Fatalf("current_user %q, %v", who, err)
	}
	pg.Await(`connection authenticated: identity="a'b c"`)
	if err := pg.Restart(t.Context(), []string{"INNATE_TEST=1"}); err != nil {
		t.Fatal(err)
	}
	pg.Connect(dsn)
	if got := pg.Query("SELECT count(*) FROM pg_roles WHERE rolname = $1", "a'b c"); got != "1" {
		t.Errorf("%s roles, want 1", got)
	}
}
