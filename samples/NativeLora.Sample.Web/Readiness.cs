namespace NativeLora.Sample.Web;

/// <summary>
/// Whether new requests are wanted: no longer from the moment that the service is told to stop. Requests are taken a while longer
/// where that is asked for, so that who balances the load has seen it, and those that have begun are ended.
/// </summary>
internal sealed class Readiness(ServiceOptions options) : IHostedLifecycleService
{
    private volatile bool _ready;

    public bool IsReady => _ready;

    public Task StartedAsync(CancellationToken cancellationToken)
    {
        _ready = true;
        return Task.CompletedTask;
    }

    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        _ready = false;
        await Task.Delay(TimeSpan.FromSeconds(options.ShutdownDelaySeconds), cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
