package appservice

// NewChallenges and Issue are for tests of what happens while nobody asks.
var NewChallenges = newChallenges

func (s *challenges) Issue() (string, error) { return s.issue() }
func (s *challenges) Close()                 { s.close() }
