using NativeLora.Selection;
using NativeLora.Training;

namespace NativeLora.Hosting;

/// <summary>A model that was opened.</summary>
/// <param name="Kind">What it was opened as: Classifier, Embedder, Generator, FineTuner.</param>
/// <param name="Folder">Its folder, as it was given.</param>
/// <param name="Adapters">Number of adapters over it.</param>
/// <param name="Took">Time that it took.</param>
public sealed record ModelOpened(string Kind, string Folder, int Adapters, TimeSpan Took);

/// <summary>
/// Is told what becomes of a model beside its calls: opening, sessions, the choice of layers, training. Every member may be left out.
/// It is called on the thread where it happens, by several at once for a model of several sessions, and must not throw.
/// </summary>
public interface IModelObserver : ITrainingObserver
{
    /// <summary>A model was opened.</summary>
    void OnOpened(ModelOpened opened) { }

    /// <summary>A model could not be opened.</summary>
    /// <param name="kind">What it was to be opened as.</param>
    /// <param name="folder">Its folder, as it was given.</param>
    /// <param name="error">Why.</param>
    void OnOpenFailed(string kind, string folder, Exception error) { }

    /// <summary>A session was made: the first when the model is opened, others when calls meet.</summary>
    /// <param name="kind">What the model was opened as.</param>
    /// <param name="number">Number of the session, from 1.</param>
    /// <param name="sessions">Sessions at most.</param>
    /// <param name="took">Time that it took.</param>
    void OnSession(string kind, int number, int sessions, TimeSpan took) { }

    /// <summary>Layers are being compared.</summary>
    /// <param name="progress">How far.</param>
    void OnSelecting(in FeatureProgress progress) { }

    /// <summary>Layers were chosen.</summary>
    /// <param name="result">Which, and why.</param>
    /// <param name="took">Time that it took.</param>
    void OnSelected(SelectionResult result, TimeSpan took) { }

    /// <summary>A training is planned and begins.</summary>
    /// <param name="plan">What it will be.</param>
    void OnTraining(TrainingPlan plan) { }

    /// <summary>A training came to its end.</summary>
    /// <param name="summary">How.</param>
    void OnTrained(TrainingSummary summary) { }

    /// <summary>A training was cancelled.</summary>
    /// <param name="step">Steps made.</param>
    /// <param name="steps">Steps of the whole training.</param>
    void OnInterrupted(int step, int steps) { }
}

/// <summary>A training that is about to begin.</summary>
/// <param name="Layers">Layers that get adapters.</param>
/// <param name="Rows">Rows to learn from.</param>
/// <param name="Steps">Optimizer steps.</param>
/// <param name="TrainableParameters">Parameters that are trained.</param>
/// <param name="PlannedBytes">Bytes that all that is planned takes, evaluations included.</param>
public sealed record TrainingPlan(IReadOnlyList<int> Layers, int Rows, int Steps, long TrainableParameters, long PlannedBytes);
