package nats

// Stop and Start take an embedded server away from under its connections and bring it back.
func (e *Embedded) Stop()        { e.stop() }
func (e *Embedded) Start() error { return e.start() }
