using System.Diagnostics;

namespace NativeLora.Hosting;

/// <summary>Tells an observer of models that are opened and of their sessions.</summary>
internal static class Opening
{
    public static T Told<T>(string kind, string folder, int adapters, IModelObserver? observer, Func<T> open)
    {
        if (observer is null)
            return open();
        var start = Stopwatch.GetTimestamp();
        try
        {
            var opened = open();
            observer.OnOpened(new ModelOpened(kind, folder, adapters, Stopwatch.GetElapsedTime(start)));
            return opened;
        }
        catch (Exception error)
        {
            observer.OnOpenFailed(kind, folder, error);
            throw;
        }
    }

    /// <summary>What makes the sessions of a pool, which makes one at a time.</summary>
    public static Func<T> Counted<T>(string kind, InferenceOptions options, Func<T> make)
    {
        if (options.Observer is not { } observer)
            return make;
        var made = 0;
        return () =>
        {
            var start = Stopwatch.GetTimestamp();
            var session = make();
            observer.OnSession(kind, ++made, options.Sessions, Stopwatch.GetElapsedTime(start));
            return session;
        };
    }
}
