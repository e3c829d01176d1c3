package local

const createVar = "BERTH_TEST_CREATE"

func createAndExit() {}
