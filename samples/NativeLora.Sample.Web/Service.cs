using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace NativeLora.Sample.Web;

/// <summary>Puts the service together.</summary>
public static class Service
{
    /// <summary>Loads the models and builds the application, which is then to be run.</summary>
    /// <param name="args">Settings, such as <c>--Model folder --Urls http://127.0.0.1:5080</c>; see <see cref="ServiceOptions"/>.</param>
    /// <param name="classifier">Makes what classifies; null: <see cref="ClassifierService"/>.</param>
    /// <exception cref="InputException">A setting is not valid, or a model cannot be loaded.</exception>
    public static WebApplication Build(string[] args, Func<ServiceOptions, IClassifierService>? classifier = null)
    {
        var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { Args = args, ContentRootPath = AppContext.BaseDirectory });
        var options = ServiceOptions.From(builder.Configuration);
        if (options.Model is null && options.Generator is null && classifier is null)
            throw new InputException("nothing to serve: give a classifier by --Model FOLDER, a decoder by --Generator FOLDER, or both");
        builder.WebHost.ConfigureKestrel(kestrel => Limit(kestrel, options));
        builder.Logging.SetMinimumLevel(LogLevel.Warning);
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = TimeSpan.FromSeconds(options.ShutdownDelaySeconds + options.ShutdownSeconds));
        builder.Services.AddSingleton(options);
        builder.Services.AddSingleton<Readiness>();
        builder.Services.AddHostedService(services => services.GetRequiredService<Readiness>());
        builder.Services.AddSingleton<PrometheusMetrics>();
        // Loaded now, so that what is missing is said before anything listens; the container disposes of them after the last request.
        var models = new Models();
        try
        {
            if (options.Model is not null || classifier is not null)
                models.Classifier = classifier?.Invoke(options) ?? new ClassifierService(options);
            if (options.Generator is not null)
                models.Generator = new GeneratorService(options);
        }
        catch
        {
            models.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw;
        }
        builder.Services.AddSingleton(_ => models);
        var app = builder.Build();
        _ = app.Services.GetRequiredService<Models>();
        app.UseMiddleware<Problems>();
        // Before the middleware that looks for empty answers, routing would answer by itself.
        app.UseRouting();
        new Endpoints(options, models.Classifier, models.Generator, app.Services.GetRequiredService<Readiness>(), app.Services.GetRequiredService<PrometheusMetrics>()).Map(app);
        return app;
    }

    /// <summary>Who sends slowly, too much or nothing holds up nobody else.</summary>
    private static void Limit(KestrelServerOptions kestrel, ServiceOptions options)
    {
        kestrel.AddServerHeader = false;
        var limits = kestrel.Limits;
        limits.MaxRequestBodySize = options.MaxBodyBytes;
        limits.MaxConcurrentConnections = 4096;
        limits.MaxRequestHeadersTotalSize = 16 << 10;
        limits.MaxRequestHeaderCount = 64;
        limits.RequestHeadersTimeout = TimeSpan.FromSeconds(10);
        limits.KeepAliveTimeout = TimeSpan.FromSeconds(120);
        limits.MinRequestBodyDataRate = new MinDataRate(bytesPerSecond: 240, gracePeriod: TimeSpan.FromSeconds(2));
    }

    private sealed class Models : IAsyncDisposable
    {
        public IClassifierService? Classifier { get; set; }

        public GeneratorService? Generator { get; set; }

        public async ValueTask DisposeAsync()
        {
            if (Classifier is not null)
                await Classifier.DisposeAsync();
            Generator?.Dispose();
        }
    }
}
