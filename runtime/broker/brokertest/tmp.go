package brokertest

var settleCases, orderCases, positionCases, adminCases, inboxCases, outageCases, crashCases []testCase
