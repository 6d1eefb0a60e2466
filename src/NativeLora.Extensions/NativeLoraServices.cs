using System.Diagnostics;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using NativeLora.Generation;
using NativeLora.Hosting;

namespace NativeLora.Extensions;

/// <summary>Puts hosted models into a container. A model is loaded when it is first asked for, once, and disposed of with the container.</summary>
public static partial class NativeLoraServices
{
    /// <summary>Adds a <see cref="Classifier"/>.</summary>
    /// <param name="services">The container.</param>
    /// <param name="folder">The model's folder.</param>
    /// <param name="options">Adapters, threads, limits.</param>
    /// <param name="key">Key of the service, where there are several; null for none.</param>
    public static IServiceCollection AddNativeLoraClassifier(this IServiceCollection services, string folder, InferenceOptions? options = null, object? key = null)
    {
        Check(services, folder);
        return Add(services, key, provider => Load(provider, nameof(Classifier), folder, () => Classifier.Open(folder, options)));
    }

    /// <summary>Adds an <see cref="Embedder"/>, and an <see cref="IEmbeddingGenerator{TInput, TEmbedding}"/> over it.</summary>
    /// <param name="services">The container.</param>
    /// <param name="folder">The model's folder.</param>
    /// <param name="options">Pooling, adapters, threads, limits.</param>
    /// <param name="key">Key of the services, where there are several; null for none.</param>
    public static IServiceCollection AddNativeLoraEmbedder(this IServiceCollection services, string folder, EmbedderOptions? options = null, object? key = null)
    {
        Check(services, folder);
        Add(services, key, provider => Load(provider, nameof(Embedder), folder, () => Embedder.Open(folder, options)));
        return Add<IEmbeddingGenerator<string, Embedding<float>>>(services, key, provider => new NativeLoraEmbeddingGenerator(Get<Embedder>(provider, key), NameOf(folder)));
    }

    /// <summary>Adds a <see cref="Generator"/>, and an <see cref="IChatClient"/> over it.</summary>
    /// <param name="services">The container.</param>
    /// <param name="folder">The model's folder.</param>
    /// <param name="options">Adapters, threads.</param>
    /// <param name="template">The chat format; the model's own where null.</param>
    /// <param name="key">Key of the services, where there are several; null for none.</param>
    public static IServiceCollection AddNativeLoraGenerator(
        this IServiceCollection services, string folder, InferenceOptions? options = null, ChatTemplate? template = null, object? key = null)
    {
        Check(services, folder);
        Add(services, key, provider => Load(provider, nameof(Generator), folder, () => Generator.Open(folder, options)));
        return Add<IChatClient>(services, key, provider => new NativeLoraChatClient(Get<Generator>(provider, key), template, NameOf(folder)));
    }

    private static void Check(IServiceCollection services, string folder)
    {
        ArgumentNullException.ThrowIfNull(services);
        ArgumentException.ThrowIfNullOrEmpty(folder);
    }

    private static IServiceCollection Add<T>(IServiceCollection services, object? key, Func<IServiceProvider, T> make) where T : class
    {
        if (key is null)
            services.TryAddSingleton(make);
        else
            services.TryAddKeyedSingleton(key, (provider, _) => make(provider));
        return services;
    }

    private static T Get<T>(IServiceProvider provider, object? key) where T : class =>
        key is null ? provider.GetRequiredService<T>() : provider.GetRequiredKeyedService<T>(key);

    private static T Load<T>(IServiceProvider provider, string kind, string folder, Func<T> open)
    {
        var logger = provider.GetService<ILoggerFactory>()?.CreateLogger("NativeLora") ?? NullLogger.Instance;
        var start = Stopwatch.GetTimestamp();
        try
        {
            var loaded = open();
            Loaded(logger, kind, folder, Stopwatch.GetElapsedTime(start).TotalMilliseconds);
            return loaded;
        }
        catch (Exception error) when (error is InputException or RunException)
        {
            NotLoaded(logger, kind, folder, error.Message);
            throw;
        }
    }

    private static string NameOf(string folder) => Path.GetFileName(Path.TrimEndingDirectorySeparator(folder));

    [LoggerMessage(1, LogLevel.Information, "{Kind} of {Folder} loaded in {Milliseconds:0} ms")]
    private static partial void Loaded(ILogger logger, string kind, string folder, double milliseconds);

    [LoggerMessage(2, LogLevel.Error, "{Kind} of {Folder} not loaded: {Reason}")]
    private static partial void NotLoaded(ILogger logger, string kind, string folder, string reason);
}
