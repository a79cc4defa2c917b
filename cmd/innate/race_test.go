//go:build race

package main_test

// raceDetector builds the program as the tests are built: its processes then
// end with 66 after a data race, which no test here takes for right.
const raceDetector = true
