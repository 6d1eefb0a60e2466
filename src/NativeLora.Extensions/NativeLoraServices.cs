using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Logging;
using NativeLora.Generation;
using NativeLora.Hosting;

namespace NativeLora.Extensions;

/// <summary>Puts hosted models into a container. A model is loaded when it is first asked for, once, and
/// disposed of with the container; what becomes of it is logged by <see cref="NativeLoraLog"/> where the container has loggers and the options name no observer.</summary>
public static class NativeLoraServices
{
    /// <summary>Adds a <see cref="Classifier"/>.</summary>
    /// <param name="services">The container.</param>
    /// <param name="folder">The model's folder.</param>
    /// <param name="options">Adapters, threads, limits.</param>
    /// <param name="key">Key of the service, where there are several; null for none.</param>
    public static IServiceCollection AddNativeLoraClassifier(this IServiceCollection services, string folder, InferenceOptions? options = null, object? key = null)
    {
        Check(services, folder);
        return Add(services, key, provider => Classifier.Open(folder, Logged(provider, options)));
    }

    /// <summary>Adds an <see cref="Embedder"/>, and an <see cref="IEmbeddingGenerator{TInput, TEmbedding}"/> over it.</summary>
    /// <param name="services">The container.</param>
    /// <param name="folder">The model's folder.</param>
    /// <param name="options">Pooling, adapters, threads, limits.</param>
    /// <param name="key">Key of the services, where there are several; null for none.</param>
    public static IServiceCollection AddNativeLoraEmbedder(this IServiceCollection services, string folder, EmbedderOptions? options = null, object? key = null)
    {
        Check(services, folder);
        Add(services, key, provider => Embedder.Open(folder, Logged(provider, options)));
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
        Add(services, key, provider => Generator.Open(folder, Logged(provider, options)));
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

    /// <summary>The options, with the container's log where they name no observer.</summary>
    private static InferenceOptions Logged(IServiceProvider provider, InferenceOptions? options)
    {
        options ??= new InferenceOptions();
        return options.Observer is null && provider.GetService<ILoggerFactory>() is { } factory ? options with { Observer = new NativeLoraLog(factory) } : options;
    }

    private static EmbedderOptions Logged(IServiceProvider provider, EmbedderOptions? options)
    {
        options ??= new EmbedderOptions();
        return options with { Inference = Logged(provider, options.Inference) };
    }

    private static string NameOf(string folder) => Path.GetFileName(Path.TrimEndingDirectorySeparator(folder));
}
