package brokertest

var roundTripCases, receiveCases, settleCases, orderCases, positionCases, adminCases, inboxCases, outageCases, crashCases []testCase
